"""A page to click on, served from this machine: pictures and clips in the browser."""
