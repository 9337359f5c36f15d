"""What the scripts share: the Python environment, the build, Terraform and the checks."""
