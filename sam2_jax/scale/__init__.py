"""Past one picture and one process: results as rows of tables, engines that feed it, exported programs."""
