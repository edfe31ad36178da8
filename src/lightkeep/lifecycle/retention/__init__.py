"""How long things stay, and how they go."""
