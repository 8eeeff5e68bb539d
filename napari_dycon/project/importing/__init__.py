"""Import of scans: finding files, detecting layouts, assigning channels, copying labels."""
