"""From the bytes of an image file to a picture, with everything refused that could do harm."""
