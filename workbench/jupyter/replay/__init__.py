"""Episodes to watch: the player, as a widget and as a page, films, and the picture that a notebook keeps."""
