"""From the bytes of an image file to a picture; files that could do harm are refused."""
