"""What reconstruction compiles, in a folder of its own: an edit elsewhere does not compile it anew."""
