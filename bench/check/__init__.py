"""What an algorithm is put to: the demands of the interface, and recorded numbers of other implementations."""
