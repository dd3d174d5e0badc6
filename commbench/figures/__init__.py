"""A report's figure: one panel a file; `sheet` puts them together, `style` keeps them alike."""
