"""The notebook side: figures, records and the live panel. The only place that imports plotly or a widget package."""
