"""One file per medium that keeps bytes; the Store protocol is in lightkeep.model.stores."""
