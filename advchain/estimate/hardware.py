"""Which machine a config means, and how many of its cards: an entry of config/hardware.yaml."""

from __future__ import annotations

from pathlib import Path

from advchain.config import Config, num_gpus
from advchain.entries import HardwareEntry, card_entry, read_entry

DRIVER = Path("/proc/driver/nvidia/gpus")
WITHOUT_GPU, UNKNOWN_CARD = "cpu", "gpu24"


def num_cards(config: Config) -> int:
    """Return the GPUs of one node: `gpus` of the config, else those of the named machine, else those of this one."""
    if config.gpus == "auto" and config.hardware != "auto":
        return read_entry("hardware", config.hardware, HardwareEntry, "hardware").gpus
    return num_gpus(config.gpus)


def hardware_name(config: Config, driver: Path = DRIVER) -> str:
    """Return the entry of config/hardware.yaml that a config means; `auto` asks the driver for the name of the first card.

    Raises:
        ConfigError: there is no such entry.
    """
    if config.hardware != "auto":
        read_entry("hardware", config.hardware, HardwareEntry, "hardware")
        return config.hardware
    return _known_card(driver) if num_cards(config) else WITHOUT_GPU


def _known_card(driver: Path) -> str:
    """The entry that knows the first card by the driver's name of it; a card of 24 GB where none does."""
    described = next((path.read_text(encoding="utf-8", errors="replace") for path in sorted(driver.glob("*/information"))), "")
    return card_entry(described) or UNKNOWN_CARD
