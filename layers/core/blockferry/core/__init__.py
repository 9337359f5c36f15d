"""What moves a block, and what it is: pure, no AWS, no clock that is not passed in."""
