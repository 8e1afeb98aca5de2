"""Where rows are worked on: on the threads of one machine, or as blocks on Spark; never what is computed."""
