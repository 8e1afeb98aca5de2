"""Where blocks of rows run; never what is computed."""
