"""CIFAR-10 and CIFAR-100: download their files, find, check and read them. Files are hostile until they are checked."""
