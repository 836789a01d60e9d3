"""The notebook: magics, the terminal, progress. The only folder that imports IPython and widgets."""
