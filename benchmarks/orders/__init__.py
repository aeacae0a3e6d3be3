"""Orders a minute, paid and delivered; beside the design that broke."""
