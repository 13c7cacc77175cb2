"""Before, during and after a run: is this machine ready, are the results whole, what may be deleted, what may be passed on."""
