"""What tests of several folders share: small files, small runs, processes to be killed."""
