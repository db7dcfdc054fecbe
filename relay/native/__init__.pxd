# Marks the folder as a package for cimport; it holds no code of its own.
