"""Images from visibilities; knows no instrument and no cluster."""
