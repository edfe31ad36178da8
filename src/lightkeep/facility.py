"""The objects of one facility, composed once."""
