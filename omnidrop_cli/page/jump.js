document.addEventListener("click", function (event) {
  var link = event.target.closest("a[data-at]");
  var player = link && document.getElementById(link.dataset.player);
  if (!player || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  var end = Number(link.dataset.until);
  function stop() {
    if (player.currentTime < end) return;
    player.pause();
    player.removeEventListener("timeupdate", stop);
  }
  player.scrollIntoView({ block: "nearest" });
  player.currentTime = Number(link.dataset.at);
  player.play();
  if (player.stopAtEnd) player.removeEventListener("timeupdate", player.stopAtEnd);
  player.stopAtEnd = stop;
  player.addEventListener("timeupdate", stop);
});
