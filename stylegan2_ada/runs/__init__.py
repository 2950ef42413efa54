"""How a run is described, started, continued: options → recipe → launch; resume goes on with one."""
