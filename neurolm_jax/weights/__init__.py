"""Names and layouts of weights published elsewhere, and their places in our parameter trees."""
