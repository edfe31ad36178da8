"""Other facilities: a site is a batch system and a folder there, reached over a network that comes and goes.

    RemoteSite (site.py)   what happens: stage in, submit, follow, stage out, clean
      ├── Area             the staging folder at the site: put, get, list, remove
      └── Queue            its batch system: submit, find, look, cancel

    ssh.py    both through a login node's sshd and Slurm's commands
    iri.py    both through the DOE IRI Facility API
    sfapi.py  both through NERSC's Superfacility API
    packing.py, job.py     what travels, and what runs at the other end

What lies in a staging area is a copy to work on. No part of it is a Store, none of it is a replica: the site may
purge it at any time, and then it is sent again.
"""
