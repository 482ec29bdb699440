"""What a picture is worth: pixel metrics and pictures to look at."""
