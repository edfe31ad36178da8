"""One file per file format: reader, writer or both."""
