"""How a gradient is shared: the defences that change it before it is sent."""
