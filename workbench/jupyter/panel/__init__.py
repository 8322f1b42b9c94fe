"""What is live on the page: a session's panel, its controls and figures, and views in cells of their own."""
