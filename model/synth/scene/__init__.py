"""From flat lettering to a photographed crop: place, ground and colours, light, lens and file."""
