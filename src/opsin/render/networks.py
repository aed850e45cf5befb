"""Every network of view synthesis: importing this registers them by name."""

from opsin.render import fast_nerf, nerf, shape_network, voxel_grid  # registers their models

__all__ = ["fast_nerf", "nerf", "shape_network", "voxel_grid"]
