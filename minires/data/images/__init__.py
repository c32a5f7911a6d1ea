"""Photographs and folders of them: decoding, resizing, crops, a cache. Image files are hostile until they are checked."""
