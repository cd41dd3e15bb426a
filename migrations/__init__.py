"""The database's shapes, one step after another. Found as a package, so that an installed Callrow can migrate too."""
