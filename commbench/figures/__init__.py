"""One panel a file: each draws one comparison into the axes it is given."""
