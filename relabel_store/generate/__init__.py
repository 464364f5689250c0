"""Images in, label maps out: teachers, image sources and the build."""
