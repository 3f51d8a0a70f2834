"""From a request's body to the images it carries."""
