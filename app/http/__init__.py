"""Parts of requests and answers that the routes of all packages share."""
