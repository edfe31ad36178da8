"""Pure numerics: arrays in, arrays out. Importable alone in a notebook; imports nothing else of Lightkeep."""
