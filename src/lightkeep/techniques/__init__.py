"""One file per technique, binding analysis to data. Copy average.py to add one."""
