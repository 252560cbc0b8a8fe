"""The web service around `model`: an image comes in over HTTP, a decision and the place of the fault go out."""
