"""The picture of a Plotly figure: drawn by matplotlib, without a browser."""
