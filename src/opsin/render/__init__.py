"""View synthesis: new views of a scene from posed images, and volumes, meshes and points as images."""
