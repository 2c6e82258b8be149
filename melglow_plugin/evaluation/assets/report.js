// One player at a time; and what has loaded is written to the body, where a test can read it.
const players = [...document.querySelectorAll("audio")], pictures = [...document.images];
for (const player of players) {
  const frame = player.closest("figure");
  player.addEventListener("play", () => {
    players.forEach(other => other === player || other.pause());
    frame.classList.add("playing");
  });
  for (const event of ["pause", "ended"]) player.addEventListener(event, () => frame.classList.remove("playing"));
  for (const event of ["loadedmetadata", "error"]) player.addEventListener(event, count);
}
for (const picture of pictures) for (const event of ["load", "error"]) picture.addEventListener(event, count);
function count() {
  document.body.dataset.audioLoaded = players.filter(p => p.readyState > 0 && p.duration > 0).length;
  document.body.dataset.imagesLoaded = pictures.filter(p => p.complete && p.naturalWidth > 0).length;
}
count();
