"""The nouns of the house: frozen dataclasses, enums, protocols and the error tree. Standard library only."""
