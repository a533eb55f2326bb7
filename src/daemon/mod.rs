mod crew;
mod gauge;
mod keeper;
