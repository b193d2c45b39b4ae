"""What has nothing to do with nnU-Net: files, processes, extras, random states."""
