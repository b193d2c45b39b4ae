"""The interfaces to nnU-Net: discovery, folders, plans, cases, images, planning, prediction."""
