"""Transfer (paper section 4): from a pre-trained model and labelled images to a classifier."""
